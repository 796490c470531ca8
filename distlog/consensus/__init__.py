"""The consensus of one group of voters: an append is acknowledged only when a majority has it on disk; or, for nodes with
durability OS, in the hands of the operating system.

    replicated_log   the one door: append, read, wait
      proposals      what waits, packed into entries (commands); admission: what may be proposed
      group          the asyncio driver, in steps: inbox -> rules -> pysyncobj -> fsync
        raft         one voter: typed messages through the rules to the library and back
          rules/     what pysyncobj does not do and Raft needs, one part a duty
          elections  when to campaign; followers: what a leader knows of the others; following: what one answers
          outgoing   what is sent, and when; held_back: to whom not all
          library    pysyncobj and every hook into it; journal_view: the journal as it sees it
        reads        read index: who may say "not there"
        transfer     handing leadership over
        membership   who joins, votes and goes, one change at a time; replicas: the other nodes, and what the library is told of them
        reconcile    what is to be done about the members, what it waits for, and why: a pure function of all that is known
        space        what entries that are not applied will cost; space_watch: what a full node does about it
        journal_sync when the journal goes to the disk, and what waits for it
        checkpoints  when one is written, and what is forgotten after it
        stalls       how long the event loop was held up
      tails          who waits at the end of a topic; retention: what the leader trims, and when
      replicated_policy who may do what, as the cluster has agreed on it (policy_changes, policy_codec)
      state_machine  what the entries mean: topics, blocks, producers, the policy, results; topic_descriptions, views: what is shown of it
      journal        Raft's own entries on disk, and how far promises may rest on them (durability)
      checkpoint     where the journal may begin
      configuration  who the members are, as an entry has it
      formation      who belongs together: how a cluster is formed or joined, and whom a member speaks with
      agreement      how empty nodes that were started alike choose whom the cluster begins with
      recovery       what the group begins with

Invariants
- No message that promises something leaves before the fsync that it rests on (rules/persistence_gate.py), and the leader
  counts itself only up to what it has fsynced (rules/commit_gate.py).  Durability OS: before the write, where it is an entry; a
  term or a vote never leaves without its fsync.
- Only `state_machine.apply` writes topic logs, in raft order, and it is deterministic: what is in a log is committed.
- An entry is taken only while the node's reserve can pay for all that is not applied yet (space.py): what is committed can
  be applied, whatever fills the disk meanwhile.
- Nobody campaigns who would not win: a voter asks before (rules/pre_vote.py), or the leader told it to (transfer).
- The newest configuration of the journal is in force, committed or not (rules/configuration_log.py); members change one at a time
  (rules/one_change.py), and a member is a name and a directory (rules/identity.py).
- An exception out of pysyncobj, the rules or apply stops the node: half-updated consensus state is never used again.

- The journal keeps what any voter still needs, up to its limit; who needs more is told to copy a checkpoint (distlog/catch_up).

Deliberately absent: threads in the protocol, pickle on the wire, pysyncobj's own files, sockets and timers, snapshots
sent through the library.
"""
