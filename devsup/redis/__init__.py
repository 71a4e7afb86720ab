"""
Everything that speaks to Redis; nothing above knows the protocol.

Two clients, for two needs. `connection` is a small one of our own that never blocks: a guard waits for all it
knows in one `poll()`, within 20 MiB, and `import redis` alone takes 29; a start and a stop are called dozens
of times an hour, and that import takes 145 ms (redis-py 8.1, Python 3.11). `client` is redis-py, for the
public `devsup.pool`, and `links` are its connections with a deadline for each call, for the public
`devsup.locks.RedisLock`; both come with the extra `devsup[redis]`.
What all run in Redis stands in `leases`: it holds from Redis 6.2 on.
"""
