import pickle

def main():
    def model(rate):
        return rate

    print(len(pickle.dumps(model)))

main()
