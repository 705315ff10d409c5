"""A job of ten seconds that prints how far it is."""

import time

for percent in range(101):
    print(f"progress {percent}", flush=True)
    time.sleep(0.1)
