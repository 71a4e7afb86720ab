"""
The guard: one small process per server that starts it, knows its tree, sees it ready, sees its exit, stops
it.

* ``__main__``  detaches from the caller before anything else is loaded
* ``spawn``     how a caller starts a guard (the only part that runs outside one)
* ``job``       what a guard was asked to run, as a file
* ``table``     the states, and what each event does in each of them
* ``beginning`` the claim and the first launch, before the rest of the guard is loaded
* ``launch``    the child is recorded before it runs
* ``watch``     readiness, as timers and descriptors of the guard's loop
* ``charge``    what a guard knows of its server
* ``book``      what it reads and writes in the registry
* ``talk``      signals, and the pipe of the caller
* ``endings``   the tree first, then the row
* ``settling``  what follows from the end of its leader or listener, and when
* ``fleet``     its connection to a fleet and its place on the list; loaded in a fleet alone
* ``lease``     the lease of an exclusive app
* ``mail``      what other hosts ask of it
* ``loop``      one `poll()` over signals, processes, probes and timers

A guard loads all it needs before its server can be ready: its own package may be removed while it runs.
"""
