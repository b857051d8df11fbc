/* Prints the sum of its arguments: what the built-in program of the gateway does, as a native program. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	int64_t sum = 0;

	for (int at = 1; at < argc; at++)
		sum += strtoll(argv[at], NULL, 10);
	printf("%" PRId64 "\n", sum);
	return 0;
}
