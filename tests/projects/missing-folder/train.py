with open("results/model.txt", "w") as file:
    file.write("trained")
