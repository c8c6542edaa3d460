package detector

func helper(mode string) {}
