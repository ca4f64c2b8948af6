package chain

// WithPageSize makes a client page through history in small steps.
func (c *Client) WithPageSize(size int) *Client {
	c.pageSize = size
	return c
}
