import json

with open("model.json") as file:
    print(json.load(file)["rate"])
