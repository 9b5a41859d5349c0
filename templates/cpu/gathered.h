
// Rows of so many `bytes` that follow each other in memory, but begin no lines, are gathered here, near at hand, and written past
// the cache as the lines that they fill: of each row on its own, the first and the last line would be part of another's, too.
struct Gathered {
  enum { LINE = LINE_BYTES, MOST = 1024 };  // lines are passed on where they are so many bytes; 512 are as quick, 2048 slower
  const bool back;  // later rows come before earlier ones
  const long bytes;
  void *memory;
  char *stage, *to;  // from where bytes are counted, back or forth; both begin a line
  long full, next;   // where the rows that are here begin, and where they end
  Gathered(bool wanted, bool back, void *first, long bytes)
      : back(back), bytes(bytes), memory(0), stage(0), to(0), full(0), next(0) {
    if (!wanted) return;
    const long room = (MOST + bytes) / LINE * LINE + 2 * LINE;
    memory = __builtin_malloc(room + LINE);
    if (!memory) __builtin_trap();
    stage = (char *)(((unsigned long)memory + LINE - 1) / LINE * LINE) + (back ? room : 0);
    to = (char *)first + (back ? bytes : 0);
    const long into = (unsigned long)to % LINE;
    full = next = back && into ? LINE - into : into;
    to += back ? full : -full;
  }
  ~Gathered() { __builtin_free(memory); }
  void *row() const { return at(stage, next, bytes); }
  void written() {
    if ((next += bytes) >= MOST) pass();
  }
  void done(long end = 0) {
    const long n = (end ? end : next) - full;
    if (n > 0) __builtin_memcpy(at(to, full, n), at(stage, full, n), n);
  }

 private:
  char *at(char *from, long i, long n) const { return back ? from - i - n : from + i; }
  void pass() {
    const long lines = next / LINE * LINE;
    if (full) done(LINE);
    for (long i = full ? LINE : 0; i < lines; i += LINE)
      for (long k = 0; k < LINE; k += LR_BYTES) {
        V v;
        __builtin_memcpy(&v, at(stage, i, LINE) + k, LR_BYTES);
        store_past((real *)(at(to, i, LINE) + k), v);
      }
    __builtin_memcpy(at(stage, 0, LINE), at(stage, lines, LINE), LINE);
    to += back ? -lines : lines, next -= lines, full = 0;
  }
};
// Whether rows of so many numbers follow each other, and `store_past` can do what it says.
template <class T> static inline bool gathered(const T *row, long time, long numbers) {
#if defined(__SSE2__) || defined(__clang__)
  return time == numbers && (unsigned long)row % sizeof(T) == 0;
#else
  return false;
#endif
}
