# Runs `ray` with the arguments after HOST and PORT once HOST:PORT answers: the head's raylet. What takes longest, importing
# Ray, is done while the head starts. Stock `ray start` would look for the head only every two seconds.
import socket
import sys
import time

from ray.scripts.scripts import main

head = (sys.argv[1], int(sys.argv[2]))
while True:
    try:
        socket.create_connection(head, timeout=3).close()
        break
    except OSError:
        time.sleep(0.05)
sys.argv = ["ray", *sys.argv[3:]]
sys.exit(main())
