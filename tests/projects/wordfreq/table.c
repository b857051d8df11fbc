#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

#define FIRST_SIZE 8

static unsigned
hash(const char *s)
{
	unsigned h = 5381;

	while (*s)
		h = h * 33 ^ (unsigned char)*s++;
	return h;
}

static void *
zeroed(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (p == NULL)
		err(1, NULL);
	return p;
}

void
table_init(Table *t)
{
	t->nbuckets = FIRST_SIZE;
	t->nwords = 0;
	t->buckets = zeroed(t->nbuckets, sizeof(Entry *));
}

static void
grow(Table *t)
{
	unsigned n = t->nbuckets * 2, i;
	Entry **buckets = zeroed(n, sizeof(Entry *)), *e, *next;

	for (i = 0; i < t->nbuckets; i++)
		for (e = t->buckets[i]; e; e = next) {
			next = e->next;
			e->next = buckets[hash(e->word) % n];
			buckets[hash(e->word) % n] = e;
		}
	free(t->buckets);
	t->buckets = buckets;
	t->nbuckets = n;
}

unsigned
table_count(Table *t, const char *word)
{
	Entry *e;

	for (e = t->buckets[hash(word) % t->nbuckets]; e; e = e->next)
		if (strcmp(e->word, word) == 0)
			return ++e->count;
	if (++t->nwords > t->nbuckets)
		grow(t);
	e = zeroed(1, sizeof(*e));
	if ((e->word = strdup(word)) == NULL)
		err(1, NULL);
	e->next = t->buckets[hash(word) % t->nbuckets];
	t->buckets[hash(word) % t->nbuckets] = e;
	return e->count = 1;
}

static int
by_count(const void *a, const void *b)
{
	const Entry *x = *(Entry *const *)a, *y = *(Entry *const *)b;

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return strcmp(x->word, y->word);
}

Entry **
table_sorted(const Table *t)
{
	Entry **all = zeroed(t->nwords + 1, sizeof(Entry *)), *e;
	unsigned i, n = 0;

	for (i = 0; i < t->nbuckets; i++)
		for (e = t->buckets[i]; e; e = e->next)
			all[n++] = e;
	qsort(all, n, sizeof(Entry *), by_count);
	return all;
}

void
table_free(Table *t)
{
	unsigned i;
	Entry *e, *next;

	for (i = 0; i < t->nbuckets; i++)
		for (e = t->buckets[i]; e; e = next) {
			next = e->next;
			free(e->word);
			free(e);
		}
	free(t->buckets);
}
