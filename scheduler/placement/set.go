package placement

// set is some entries in no order. Every entry knows its place in the sets that it is a member of, and so leaves one at once.
type set []int32

// The kinds of sets: an entry is a member of at most one of each.
const (
	ofPart = iota
	ofReserved
	ofSite
	members
)

func (x *Index) enter(s *set, kind int, at int32) {
	x.entries[at].place[kind] = int32(len(*s))
	*s = append(*s, at)
}

// depart moves the last member to the place that becomes free.
func (x *Index) depart(s *set, kind int, at int32) {
	place, last := x.entries[at].place[kind], len(*s)-1
	moved := (*s)[last]
	(*s)[place] = moved
	x.entries[moved].place[kind] = place
	*s = (*s)[:last]
}
