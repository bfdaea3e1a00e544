import threading

threading.Event().wait(0.5)
