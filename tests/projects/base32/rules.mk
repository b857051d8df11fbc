CFLAGS = -O2 -pedantic -Wall
CPPFLAGS = -I$(CURDIR)/..

%.o: %.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $(CURDIR)/$< -o $@
