// Package placement decides which hosts a cluster goes to. It is pure: a fleet and a request in, a plan or an explanation out; it
// reads no clock, no randomness and no store, and goes through no map where an order could show.
//
// # What is decided
//
// A node takes GPUs of one model on one host. A cluster's nodes, its gang, are of one model and one runtime and on different hosts, so
// that one machine's failure costs one node. Under these rules and those of the request the plan is exactly the cheapest feasible
// one. Among plans of equal price it is the one that strands fewest GPUs, that is leaves fewest free ones on the hosts that it uses;
// then the one with the lower host ids. Equal input gives equal output.
//
// # How
//
// The Index keeps the hosts that can be booked in lists: one for each model, runtime, region, class of price and number of free
// GPUs, in the order of prices and ids. Lists are chunked, so that a change moves at most a chunk.
//
//	group           part      class    free   price and host
//	H100, process   eu-west   hourly   8      1.90 h7   1.95 h2   2.10 h9 ...
//	                                   5      1.80 h4   ...
//	                          daily    8      1.75 h7   ...
//	                us-east   ...
//	L40S, docker    ...
//
// A request for nodes of g GPUs merges, with a heap, the lists of g and more free GPUs of the parts that it may use. It so meets
// hosts exactly in the order in which they are preferred, never one that is too full, and takes the first that pass all conditions:
// for any prices, the first n hosts of an order by price are the cheapest n. Of a class of GPUs ("any with 80 GB") each group makes
// its best gang, and the best of those is taken.
//
//	change of a host    O(classes * (log hosts + chunk))
//	gang of n nodes     O(n + hosts met that fail a condition) * log lists
//	Explain             O(hosts)
//
// Two kinds of hosts are in no list of use to a request and are looked at one by one: those with reservations, and for requests that
// start later, or preempt, all of the parts, since leases that end or give way by then count as free.
//
// Links are a star: two hosts of a site are next to each other, and two sites are as far from each other as the sum of their round
// trips to the control plane, which relays between them. Gangs on one site are tallied by site during the walk, which ends when no
// site can still win. Within a bound on links there are only as many sets of sites to consider as there are far ones; see network.go.
//
// # Why not
//
// The conditions that decide are a list, and Explain runs the same list over the fleet: it counts what each leaves and what each alone
// keeps out, and names the first that leaves too few. Nearest relaxes a refused request in one way at a time, by the least that
// helps, and proves each by placing it.
//
// # Use
//
// An Index may be read by any number of callers at a time; changes need exclusion. The slices of hosts that go in and come out are
// shared with the index and are not to be written to. Prices are to be so far below the largest amount that a gang's do not overflow;
// the market's limit on asks sees to that.
package placement
