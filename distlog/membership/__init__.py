"""How a node comes to its cluster, which others it knows there, and how it leaves.

    arrival     it joins a cluster that there is (joining), or meets others that were started alike and agrees with them (meeting)
    neighbours  whom it has heard of and where each is reached: hellos, the configuration, and what discovery sees
    finding     discovery as one node uses it: which backend, what it tells, what follows from what it sees
    departure   how it leaves for good

Who is a member is decided in `consensus` alone, by entries; nothing here votes, and nothing here touches a file of the log.
"""
