"""A gdb remote server: a machine seen and driven by a debugger, forwards and backwards in time.

framing.py packets on a connection; target.py what gdb is told about registers; place.py one position in time; pages.py and
history.py the past; execution.py runs and their ends; travel.py the way back; registers.py writes of the debugger's;
monitor.py and its parts the `monitor` commands; session.py one client; server.py the listening socket.
"""
