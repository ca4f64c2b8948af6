package paced

// Poller is the poller that looks after a connection now, nil while none does.
func (c *Conn) Poller() *Poller {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.poller
}
