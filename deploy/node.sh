#!/bin/sh
# One node of the Procfile:  node.sh NODE_ID CLIENT_PORT PEER_PORT [CERTIFICATES]
#
# CERTIFICATES: a directory of `distlog certs`; without it nothing is encrypted.
#
# n1 begins the cluster, the others join it; when they belong to it they know that, and the flags mean nothing any more.
#
# It stays when its node is killed: honcho stops every process as soon as one ends, and a cluster that is there to
# survive the loss of a node must not be taken down by the tool that started it.  A node that says itself that it
# cannot run (exit status 1 or 2) still ends everything.

case "$1" in
n1) way=--bootstrap ;;
*) way=--join=127.0.0.1:8400,127.0.0.1:8410,127.0.0.1:8420 ;;
esac
node=$1
again="make $1${4:+-tls}"
set -- --node-id "$1" --data-dir "data/$1" --listen "127.0.0.1:$2" --peer-listen "127.0.0.1:$3" \
    ${4:+--tls-ca "$4/ca.pem" --tls-cert "$4/$1.pem" --tls-key "$4/$1.key"}
distlog serve "$@" "$way"
status=$?

if [ "$status" -eq 1 ] || [ "$status" -eq 2 ]; then
    exit "$status"
fi
echo "$node has ended (status $status); the others go on.  Start it again in another shell: $again"
exec sleep infinity
