import yaml

print(yaml.safe_load(open("config.yaml"))["rate"])
