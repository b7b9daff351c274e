"""Our own client of Lambda's Runtime API: it streams, and serves several invocations at once."""
