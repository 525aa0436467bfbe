"""How fast the library is, beside the method written out plainly, in one run on one machine."""
