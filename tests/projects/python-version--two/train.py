print "trained"
