"""Programs that measure distlog on the machine they run on: `make bench`.  docs/performance.md has the results."""
