print(open("settings.txt").read())
