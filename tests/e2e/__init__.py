"""The built program as users run it: its life as a process, and bodies that stream. `tests/run e2e` runs all of it."""
