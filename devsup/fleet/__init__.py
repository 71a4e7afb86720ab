"""
What the hosts of a fleet tell each other through Redis: their servers, who may run an app, requests.

* ``membership``  what one server is to its fleet: the fleet's name, its host, its project, its lease
* ``keys``        where all this stands in Redis
* ``settings``    in which fleet a project is, and what this host is called, by file and environment
* ``holding``     what a lease says of who has it
* ``note``        how long a lease is held, as its own host knows it
* ``listing``     the list of servers: published, told to be alive, forgotten, read
* ``requests``    what one host asks the guard of a server on another host to do

Pure, as `devsup.redis.leases` is, but for `note`, a file: commands are made and answers are read; a
guard and a caller send them by connections of their own. All times are those of Redis, so no two clocks are
ever compared.
"""
