package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
)

const (
	maxQuestions  = 4_096 // whose answers are kept, for when the proxy lags
	maxRecordings = 256   // of one question

	tokenAccountSize  = 165
	tokenAmountOffset = 64
	nonceAccountSize  = 80
	nonceValueOffset  = 40
)

// recording is an answer and the slot that it was true at.
type recording struct {
	slot  uint64
	value json.RawMessage // {"context": ..., "value": ...}
}

// answer asks the chain and, when the proxy lags, gives what it would have said so many slots ago.
func (p *Proxy) answer(ctx context.Context, c call) ([]byte, error) {
	p.mu.Lock()
	lag := p.lag
	p.mu.Unlock()
	body, minimum := c.body, uint64(0)
	if lag > 0 {
		body, minimum = withoutMinimum(c)
	}
	answer, err := p.forward(ctx, body)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return nil, fmt.Errorf("the chain's answer: %w", err)
	}
	slot, withContext := contextOf(reply.Result)
	key := question(c)
	if withContext {
		p.record(key, recording{slot: slot, value: reply.Result})
	}
	if lag == 0 || c.Method == methodSend || c.Method == methodAirdrop || reply.Result == nil {
		return answer, nil
	}
	if withContext && c.Method != methodStatuses {
		return p.asItWas(c, key, slot-min(slot, lag), minimum), nil
	}
	return p.historyAsItWas(ctx, c, reply.Result, lag, minimum)
}

// asItWas answers from the newest recording that is old enough. What the recording after it shows unchanged was so at upTo as well.
func (p *Proxy) asItWas(c call, key string, upTo, minimum uint64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.seen[key]
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].slot > upTo {
			continue
		}
		then := all[i]
		if i+1 < len(all) && then.unchanged(all[i+1]) {
			then = then.at(upTo)
		}
		if then.slot < minimum {
			return document(c, "error", map[string]any{"code": -32016, "message": "Minimum context slot has not been reached"})
		}
		return document(c, "result", then.value)
	}
	return document(c, "error", map[string]any{"code": -32005, "message": "Node is behind"})
}

// unchanged reports whether two recordings differ in their slot alone.
func (r recording) unchanged(other recording) bool {
	return reflect.DeepEqual(member(decoded(r.value), "value"), member(decoded(other.value), "value"))
}

// at is the same answer at another slot.
func (r recording) at(slot uint64) recording {
	result := decoded(r.value)
	if of, isObject := member(result, "context").(map[string]any); isObject {
		of["slot"] = slot
	}
	value, err := json.Marshal(result)
	if err != nil {
		panic(err) // it was made of JSON
	}
	return recording{slot: slot, value: value}
}

// historyAsItWas leaves out what lies in slots that a lagging provider has not seen.
func (p *Proxy) historyAsItWas(ctx context.Context, c call, result json.RawMessage, lag, minimum uint64) ([]byte, error) {
	answer, err := p.forward(ctx, []byte(`{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"finalized"}]}`))
	if err != nil {
		return nil, err
	}
	var tip struct {
		Result uint64 `json:"result"`
	}
	if err := json.Unmarshal(answer, &tip); err != nil {
		return nil, fmt.Errorf("the chain's slot: %w", err)
	}
	upTo := tip.Result - min(tip.Result, lag)
	if minimum > upTo {
		return document(c, "error", map[string]any{"code": -32016, "message": "Minimum context slot has not been reached"}), nil
	}
	switch c.Method {
	case methodSlot, methodHeight:
		var number uint64
		if err := json.Unmarshal(result, &number); err != nil {
			return nil, fmt.Errorf("the chain's slot: %w", err)
		}
		return document(c, "result", number-min(number, lag)), nil
	case methodHistory:
		return document(c, "result", upToSlot(decoded(result), upTo)), nil
	case methodStatuses:
		list := member(decoded(result), "value")
		for i, status := range items(list) {
			if slotOf(status) > upTo {
				items(list)[i] = nil
			}
		}
		return document(c, "result", map[string]any{"context": map[string]any{"slot": upTo}, "value": list}), nil
	case methodTransaction:
		if value := decoded(result); slotOf(value) > upTo {
			return document(c, "result", nil), nil
		}
	}
	return document(c, "result", result), nil
}

func upToSlot(list any, slot uint64) []any {
	kept := []any{}
	for _, entry := range items(list) {
		if slotOf(entry) <= slot {
			kept = append(kept, entry)
		}
	}
	return kept
}

func (p *Proxy) record(key string, r recording) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, known := p.seen[key]
	if !known && len(p.seen) >= maxQuestions {
		return
	}
	if len(all) > 0 && all[len(all)-1].slot >= r.slot {
		return
	}
	if len(all) == maxRecordings {
		all = all[1:]
	}
	p.seen[key] = append(all, r)
}

// question is a call's method and parameters, but for the minimum context slot, which differs from call to call.
func question(c call) string {
	_, _, params := splitMinimum(c)
	text, err := json.Marshal(params)
	if err != nil {
		panic(err) // it was made of JSON
	}
	return c.Method + string(text)
}

func withoutMinimum(c call) (body []byte, minimum uint64) {
	minimum, found, params := splitMinimum(c)
	if !found {
		return c.body, 0
	}
	text, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.ID, "method": c.Method, "params": params})
	if err != nil {
		panic(err) // it was made of JSON
	}
	return text, minimum
}

func splitMinimum(c call) (minimum uint64, found bool, params []any) {
	for _, raw := range c.Params {
		param := decoded(raw)
		if options, isObject := param.(map[string]any); isObject {
			if number, given := options["minContextSlot"].(json.Number); given {
				found = true
				minimum = unsigned(number)
			}
			delete(options, "minContextSlot")
		}
		params = append(params, param)
	}
	return minimum, found, params
}

func contextOf(result json.RawMessage) (slot uint64, found bool) {
	var with struct {
		Context *struct {
			Slot uint64 `json:"slot"`
		} `json:"context"`
	}
	if json.Unmarshal(result, &with) != nil || with.Context == nil {
		return 0, false
	}
	return with.Context.Slot, true
}

// lie changes an answer.
func lie(fault Fault, method string, answer []byte) []byte {
	document := decoded(answer)
	fields, isObject := document.(map[string]any)
	if !isObject || fields["result"] == nil {
		return answer
	}
	if fault == Prune {
		prune(method, fields)
	} else {
		falsify(fault, method, fields)
	}
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // it was made of JSON
	}
	return text
}

func prune(method string, answer map[string]any) {
	switch method {
	case methodHistory:
		answer["result"] = []any{}
	case methodTransaction:
		answer["result"] = nil
	case methodStatuses:
		list := items(member(answer["result"], "value"))
		for i := range list {
			list[i] = nil
		}
	}
}

func falsify(fault Fault, method string, answer map[string]any) {
	result := answer["result"]
	switch method {
	case methodAccount:
		falsifyAccount(fault, member(result, "value"))
	case methodAccounts:
		for _, account := range items(member(result, "value")) {
			falsifyAccount(fault, account)
		}
	case methodBalance:
		if fields, isObject := result.(map[string]any); isObject {
			fields["value"] = oneMore(fields["value"])
		}
	case methodTransaction:
		for _, balance := range items(member(member(result, "meta"), "postTokenBalances")) {
			if amount, isObject := member(balance, "uiTokenAmount").(map[string]any); isObject {
				amount["amount"] = oneMore(amount["amount"])
			}
		}
	}
}

func falsifyAccount(fault Fault, account any) {
	data := items(member(account, "data"))
	if len(data) == 0 {
		return
	}
	text, _ := data[0].(string)
	content, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return
	case fault == WrongBalance && len(content) == tokenAccountSize:
		amount := content[tokenAmountOffset:]
		binary.LittleEndian.PutUint64(amount, binary.LittleEndian.Uint64(amount)+1)
	case fault == WrongNonce && len(content) == nonceAccountSize:
		content[nonceValueOffset] ^= 1
	}
	data[0] = base64.StdEncoding.EncodeToString(content)
}

// oneMore adds one to a number or to a number's text.
func oneMore(value any) any {
	sum, isNumber := new(big.Int).SetString(fmt.Sprint(value), 10)
	if !isNumber {
		return value
	}
	sum.Add(sum, big.NewInt(1))
	if _, isText := value.(string); isText {
		return sum.String()
	}
	return json.Number(sum.String())
}

// decoded reads JSON without losing digits; what is no JSON is nil.
func decoded(text []byte) (value any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil {
		return nil
	}
	return value
}

func member(value any, name string) any {
	fields, _ := value.(map[string]any)
	return fields[name]
}

func items(value any) []any {
	list, _ := value.([]any)
	return list
}

func slotOf(value any) uint64 {
	number, _ := member(value, "slot").(json.Number)
	return unsigned(number)
}

func unsigned(number json.Number) uint64 {
	value, _ := new(big.Int).SetString(number.String(), 10)
	if value == nil || !value.IsUint64() {
		return 0
	}
	return value.Uint64()
}
