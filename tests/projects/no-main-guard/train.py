import multiprocessing

worker = multiprocessing.get_context("spawn").Process(target=print, args=("trained",))
worker.start()
worker.join()
raise SystemExit(worker.exitcode)
