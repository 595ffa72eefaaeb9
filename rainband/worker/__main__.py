"""Entry of a worker process; started by a supervisor."""

import sys

from rainband.worker.process import main

if __name__ == "__main__":
    main(sys.argv[1:])
