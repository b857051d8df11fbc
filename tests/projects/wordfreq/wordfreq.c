#include <ctype.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "table.h"

#define MAXWORD 128

static int iflag;

static int
getword(char *word)
{
	int c, n = 0;

	while ((c = getchar()) != EOF && !isalpha(c))
		;
	for (; c != EOF && (isalpha(c) || c == '\''); c = getchar())
		if (n < MAXWORD - 1)
			word[n++] = iflag ? tolower(c) : c;
	word[n] = '\0';
	return n;
}

int
main(int argc, char *argv[])
{
	Table table;
	Entry **all;
	char word[MAXWORD];
	unsigned i, total = 0, most = 10;
	int ch;

	while ((ch = getopt(argc, argv, "in:")) != -1)
		switch (ch) {
		case 'i':
			iflag = 1;
			break;
		case 'n':
			most = atoi(optarg);
			break;
		default:
			fprintf(stderr, "usage: wordfreq [-i] [-n number]\n");
			return 64;
		}
	if (optind < argc)
		errx(65, "%s: only standard input is read", argv[optind]);

	table_init(&table);
	while (getword(word) > 0)
		total++, table_count(&table, word);
	all = table_sorted(&table);
	for (i = 0; i < table.nwords && i < most; i++)
		printf("%7u %s\n", all[i]->count, all[i]->word);
	fprintf(stderr, "%u words, %u different\n", total, table.nwords);
	free(all);
	table_free(&table);
	return 0;
}
