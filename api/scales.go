package api

import "time"

const bpsPerPercent = 100

// tiers are the standings of hosts, the lowest first.
var tiers = []string{"new", "proven", "trusted"}

func tierName(tier int) string { return tiers[min(max(tier, 0), len(tiers)-1)] }

// percent is basis points as people write them.
func percent(bps int) float64 { return float64(bps) / bpsPerPercent }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
