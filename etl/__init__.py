"""Where rows come from and go to: the lake, the stages, planning, releases, queries and the command line."""
