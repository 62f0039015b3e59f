"""The commands of `meshsync lab`: `group` has what all of them share; each is imported when it is asked for."""
