"""What reaches an Azure ML workspace from anywhere: from our doors, and from inside a job.

This room travels: it goes into a job as one zip, where neither the rest of this package nor Azure's libraries are. So
it imports the standard library, requests (which MLflow needs) and whatever MLflow the project pins, nothing else of
ours, by relative imports, and runs on Python 3.8. The doors and ``workspace/`` build on it.
"""
