import pandas

table = pandas.read_csv("train.csv")
print(table["tagret"].mean())
