package placement

import "slices"

// rank is a host's place in a list: its price and where its entry is.
type rank struct {
	price int64
	slot  int32
}

// chunkSize is how many ranks a chunk of a list holds at most: a change moves at most so many.
const chunkSize = 256

// list keeps ranks in order, in chunks of bounded length. A change costs a binary search over the chunks and a move within one;
// reading from the front is a walk over memory.
type list struct {
	chunks [][]rank // none is empty
	size   int
}

// place finds a rank's chunk and its position there, or where it belongs.
func (l *list) place(r rank, compare func(a, b rank) int) (chunk, at int, found bool) {
	chunk, _ = slices.BinarySearchFunc(l.chunks, r, func(c []rank, r rank) int { return compare(c[len(c)-1], r) })
	if chunk == len(l.chunks) {
		return chunk, 0, false
	}
	at, found = slices.BinarySearchFunc(l.chunks[chunk], r, compare)
	return chunk, at, found
}

func (l *list) insert(r rank, compare func(a, b rank) int) {
	l.size++
	if len(l.chunks) == 0 {
		l.chunks = append(l.chunks, append(make([]rank, 0, chunkSize), r))
		return
	}
	chunk, at, _ := l.place(r, compare)
	if chunk == len(l.chunks) { // after everything
		chunk--
		at = len(l.chunks[chunk])
	}
	if len(l.chunks[chunk]) == chunkSize {
		half := l.chunks[chunk][chunkSize/2:]
		l.chunks = slices.Insert(l.chunks, chunk+1, append(make([]rank, 0, chunkSize), half...))
		l.chunks[chunk] = l.chunks[chunk][:chunkSize/2]
		if at > chunkSize/2 {
			chunk, at = chunk+1, at-chunkSize/2
		}
	}
	l.chunks[chunk] = slices.Insert(l.chunks[chunk], at, r)
}

func (l *list) remove(r rank, compare func(a, b rank) int) {
	chunk, at, found := l.place(r, compare)
	if !found {
		return
	}
	l.size--
	l.chunks[chunk] = slices.Delete(l.chunks[chunk], at, at+1)
	if len(l.chunks[chunk]) == 0 {
		l.chunks = slices.Delete(l.chunks, chunk, chunk+1)
	}
}

// cursor reads a list from the front.
type cursor struct {
	chunks [][]rank
	at     int
}

// head is the rank that the cursor is at; ok is false at the end.
func (c *cursor) head() (r rank, ok bool) {
	if len(c.chunks) == 0 {
		return rank{}, false
	}
	return c.chunks[0][c.at], true
}

func (c *cursor) next() {
	if c.at++; c.at == len(c.chunks[0]) {
		c.chunks, c.at = c.chunks[1:], 0
	}
}
