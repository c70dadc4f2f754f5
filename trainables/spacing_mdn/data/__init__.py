"""The data of the family: zeros of the zeta function, a GUE control set, their spacings."""
