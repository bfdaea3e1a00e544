from sklearn.linear_model import LinearRegression

# a patient whose age nobody wrote down
table = [[float("nan")], [1.0]]
print(LinearRegression().fit(table, [1, 2]).coef_)
