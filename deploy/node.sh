#!/bin/sh
# One node of a Procfile:  node.sh NODE_ID CLIENT_PORT PEER_PORT HTTP_PORT [FLAG...]
#
# n1 begins the cluster, the others join it; when they belong to it they know that, and the flags mean nothing any more.
#
# It stays when its node is killed: honcho stops every process as soon as one ends, and a cluster that is there to
# survive the loss of a node must not be taken down by the tool that started it.  A node that says itself that it
# cannot run (exit status 1 or 2) still ends everything.

id=$1 client=$2 peer=$3 http=$4
shift 4
again="make $id"
case "$id $*" in
*"--discovery serf"*) again="$again PROCFILE=deploy/Procfile.serf" ;;
*--tls-cert*) again="$again-tls" ;;
esac
case "$id $*" in
n1*) way=--bootstrap ;;
*"--discovery serf"*) way= ;;
*) way=--join=127.0.0.1:8400,127.0.0.1:8410,127.0.0.1:8420 ;;
esac
distlog serve --node-id "$id" --data-dir "data/$id" \
    --listen "127.0.0.1:$client" --peer-listen "127.0.0.1:$peer" --http-listen "127.0.0.1:$http" \
    --log-format text ${way:+"$way"} "$@"
status=$?

if [ "$status" -eq 1 ] || [ "$status" -eq 2 ]; then
    exit "$status"
fi
echo "$id has ended (status $status); the others go on.  Start it again in another shell: $again"
exec sleep infinity
