"""
What a project contains and how each of its apps is run: from a folder and a name to a `Plan`.

`project` finds the root, `detect` the apps, `recognise` says what an explicit command is, `commands` makes
the plan and checks it. Nothing here is written, started or remembered: two callers that look at the same
files at the same time get the same answer, and files that change while they are read give the answer of
before or after.
"""
