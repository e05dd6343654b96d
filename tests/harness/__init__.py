"""What the test parts share: preparations, the program under test as a process, plain HTTP/1 on sockets."""
