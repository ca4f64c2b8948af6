package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/chain"
)

// Account layouts.
const (
	tokenAccountSize  = 165
	tokenOwnerOffset  = 32
	tokenStateOffset  = 108
	tokenInitialized  = 1
	nonceAccountSize  = 80
	nonceVersion      = 1
	nonceInitialized  = 1
	nonceKeyOffset    = 8
	nonceValueOffset  = 40
	nonceFeeOffset    = 72
	lamportsSignature = 5_000
)

// furnish writes the wallets' token accounts and the nonces into the chain's file, as the chain itself writes accounts when it
// compacts it: by transactions that would take as long as many runs.
func (w *world) furnish(ctx context.Context) error {
	tokenRent, err := w.cluster.RentExempt(ctx, tokenAccountSize)
	if err != nil {
		return err
	}
	nonceRent, err := w.cluster.RentExempt(ctx, nonceAccountSize)
	if err != nil {
		return err
	}
	if err := w.fund(ctx); err != nil {
		return err
	}
	return w.restart(ctx, func() error {
		file, err := os.OpenFile(filepath.Join(w.state(), "ledger.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // closed with its error below
		out := bufio.NewWriter(file)
		for i := range w.settings.payees {
			if err := w.writeWallet(out, i, tokenRent); err != nil {
				return err
			}
		}
		for i := range nonces {
			if err := w.writeNonce(out, i, nonceRent); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		return file.Close()
	})
}

// fund gives the treasury SOL for all fees.
func (w *world) fund(ctx context.Context) error {
	if _, err := w.cluster.Airdrop(ctx, w.treasury, reserveSOL*lamportsPerSOL); err != nil {
		return err
	}
	return await(ctx, "the airdrop", func() (bool, error) {
		lamports, err := w.cluster.Lamports(ctx, w.treasury)
		return lamports >= reserveSOL*lamportsPerSOL, err
	})
}

func (w *world) writeWallet(out *bufio.Writer, i int, rent uint64) error {
	wallet := chain.Address(sha256.Sum256([]byte("wallet " + strconv.Itoa(i))))
	account, err := chain.AssociatedTokenAccount(wallet, w.local.Mint, chain.TokenProgram)
	if err != nil {
		return err
	}
	w.wallets, w.accounts = append(w.wallets, wallet), append(w.accounts, account)
	data := make([]byte, tokenAccountSize)
	copy(data, w.local.Mint[:])
	copy(data[tokenOwnerOffset:], wallet[:])
	data[tokenStateOffset] = tokenInitialized
	return writeAccount(out, account, rent, chain.TokenProgram, data)
}

func (w *world) writeNonce(out *bufio.Writer, i int, rent uint64) error {
	account := chain.Address(sha256.Sum256([]byte("nonce " + strconv.Itoa(i))))
	value := sha256.Sum256(account[:])
	w.nonces = append(w.nonces, account)
	data := make([]byte, nonceAccountSize)
	binary.LittleEndian.PutUint32(data, nonceVersion)
	binary.LittleEndian.PutUint32(data[4:], nonceInitialized)
	copy(data[nonceKeyOffset:], w.treasury[:])
	copy(data[nonceValueOffset:], value[:])
	binary.LittleEndian.PutUint64(data[nonceFeeOffset:], lamportsSignature)
	return writeAccount(out, account, rent, solana.SystemProgramID, data)
}

// writeAccount writes a record of the chain's file: a line with its checksum.
func writeAccount(out *bufio.Writer, address chain.Address, lamports uint64, owner chain.Address, data []byte) error {
	text, err := json.Marshal(map[string]any{"k": "accounts", "w": [][]any{
		{address.String(), strconv.FormatUint(lamports, 10), owner.String(), false, base64.StdEncoding.EncodeToString(data)},
	}})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	return err
}
