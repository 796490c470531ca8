#!/bin/sh
# One node of the Procfile:  node.sh NODE_ID CLIENT_PORT PEER_PORT
#
# It stays when its node is killed: honcho stops every process as soon as one ends, and a cluster that is there to
# survive the loss of a node must not be taken down by the tool that started it.  A node that says itself that it
# cannot run (exit status 1 or 2) still ends everything.

distlog serve --node-id "$1" --data-dir "data/$1" \
    --listen "127.0.0.1:$2" --peer-listen "127.0.0.1:$3" \
    --peers n1=127.0.0.1:8401,n2=127.0.0.1:8411,n3=127.0.0.1:8421
status=$?

if [ "$status" -eq 1 ] || [ "$status" -eq 2 ]; then
    exit "$status"
fi
echo "$1 has ended (status $status); the others go on.  Start it again in another shell: make $1"
exec sleep infinity
