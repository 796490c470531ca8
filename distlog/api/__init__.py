"""The client API as code: generated messages (`log.v1`), and what an error looks like on the wire (`status`).

    distlog.errors  <->  status  <->  google.rpc.Status in a gRPC trailer
                         log.v1.log_pb2, log_pb2_grpc      generated from proto/ by `make proto`; CI checks that it was

Both the server and the client import this package and it imports nothing of distlog but `errors`.  Deliberately absent:
any behaviour.  What a call does is in `server`, how it is repeated is in `client`.
"""
