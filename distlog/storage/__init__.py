"""Storage: logs of records in files, and the disk under them.

    Disk                      files, maps, reservations, syncs, names; the real one, and one that forgets (SimulatedDisk)
      SparingDisk  ReservedDisk       with descriptors, and with space, that are kept for what was promised
      MappedFile              a file appended to in space reserved before, read through a map while it is written
        Store  Index  BatchTable          the three files of a segment
          Segment             a range of offsets; active (the last one, written) or sealed (only read)
            Log               append, read, trim, roll, sync: what consensus and nobody else writes to
              SegmentCache    which segments' files are open: few, and all that is written and not synced
              TimeSearch      the first batch of a time or later; Retention: which segments may go
              Recovery        what is kept, cut, rebuilt or set aside when a log is opened
              replacement     what takes the place of a segment that was set aside, while the log is open
              LogMark         up to where a log was synced: by a checkpoint, or by its own file `synced`; mark_check: whether these fit
    DataDirectory             whose directory this is, and where its parts are
    survey  comparison        looking at files without changing them; seed_import adopts a seed's
      SegmentScan  TableScan  every check of one segment in one pass; Invariant: what must hold, by name

docs/format.md has every byte.  One thread owns a log.  What leaves it are plans that go to sealed segments (`ReadPlan`, `TimeSearch`,
`RetentionPlan`), and the functions that `begin_sync` and `begin_remove_trimmed` return.

Invariants
- A batch is there if its row in the batch table is whole and its frames have the row's checksum.  The row is written last, so
  nothing is half appended, and the end is never guessed from zeros.
- Space is reserved before it is written: a full disk is StorageFull before anything has changed, never a SIGBUS in the middle
  of a write.
- What lies before a mark was synced, names included, and is never cut away: if it is damaged, reading it is CorruptBatch, its
  files stay as they are, and everything else reads on.  What lies after the mark is whole or gone.  Corruption is told from a
  torn tail by the mark alone.
- The same appends give the same bytes: segments roll by limits that are part of the topic; nothing here reads a clock or
  draws a number.
- The index is a cache; whatever it says wrong is rebuilt from the store.
- A sealed segment never changes and never becomes active again while the log is open.  Its files go only when they lie below a
  durable start offset and no plan holds them.

Deliberately absent: an event loop, threads, time-outs, and locks but for the reserve's one (the caller decides which thread
runs what); retries of a failed sync (the process must stop); compression, and any change of what is stored (a restart writes
again what it found, as it is); a lookup by key; Raft, which keeps a journal of its own.
"""
