import helpers

print(helpers.RATE)
