/* Counts of words, in a hash table that grows. */
typedef struct entry {
	char		*word;
	unsigned	 count;
	struct entry	*next;
} Entry;

typedef struct {
	Entry	**buckets;
	unsigned  nbuckets;
	unsigned  nwords;
} Table;

void	  table_init(Table *);
unsigned  table_count(Table *, const char *);
/* All entries, most frequent first, equal ones by the alphabet. The caller frees the array. */
Entry	**table_sorted(const Table *);
void	  table_free(Table *);
