package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/config"
	"github.com/muster-gpu/muster/settlement/signer"
)

const (
	defaultKeyFile    = "/etc/muster/treasury.key"
	defaultPolicyFile = "/etc/muster/signer-policy.json"
	defaultJournalDir = "/var/lib/muster/signer"

	maxPassphraseBytes = 1 << 10
	// passphraseCredential is looked for where systemd puts credentials, if no other source is named.
	passphraseCredential = "signer-passphrase" //nolint:gosec // a name
)

func signerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "signer", Short: "Hold the treasury's key and sign what the policy allows"}
	log := &cobra.Command{Use: "log", Short: "Read the signer's log"}
	log.AddCommand(signerLogVerifyCommand())
	policy := &cobra.Command{Use: "policy", Short: "Read the signer's policy"}
	policy.AddCommand(signerPolicyCheckCommand())
	cmd.AddCommand(signerInitCommand(), signerServeCommand(), log, policy)
	return cmd
}

// passphraseSource is where a key file's passphrase comes from: never the command line, which other users can read.
type passphraseSource struct {
	file       string
	descriptor int
}

func (s *passphraseSource) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "passphrase-file", "", "private file with the key file's passphrase; by default systemd's credential "+passphraseCredential)
	cmd.Flags().IntVar(&s.descriptor, "passphrase-fd", 0, "file descriptor to read the key file's passphrase from")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-fd")
}

// path is the file that the passphrase is in, if it is in one.
func (s *passphraseSource) path() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); s.file == "" && s.descriptor == 0 && dir != "" {
		if path := filepath.Join(dir, passphraseCredential); exists(path) {
			return path
		}
	}
	return s.file
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// read returns the passphrase, or nothing if no source is named.
func (s *passphraseSource) read() (string, error) {
	if path := s.path(); path != "" {
		return signer.ReadPassphrase(path)
	}
	if s.descriptor == 0 {
		return "", nil
	}
	file := os.NewFile(uintptr(s.descriptor), "passphrase")
	if file == nil {
		return "", fmt.Errorf("%d is no file descriptor", s.descriptor)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxPassphraseBytes))
	if err != nil {
		return "", fmt.Errorf("read the passphrase from descriptor %d: %w", s.descriptor, err)
	}
	passphrase := strings.TrimSpace(string(text))
	if passphrase == "" {
		return "", fmt.Errorf("descriptor %d gives no passphrase", s.descriptor)
	}
	return passphrase, nil
}

func signerInitCommand() *cobra.Command {
	var path string
	var source passphraseSource
	var file signer.KeyFile
	cmd := &cobra.Command{
		Use: "init", Short: "Make the treasury's key and print its address", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file.Passphrase, err = source.read(); err != nil {
				return err
			}
			treasury, err := file.Init(path)
			if err != nil {
				return err
			}
			if file.Passphrase == "" {
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s is not encrypted; with --passphrase-file or --passphrase-fd it is\n", path)
			}
			if !file.DepositsOnly {
				_, printErr := fmt.Fprintln(cmd.OutOrStdout(), treasury)
				err = errors.Join(err, printErr)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&path, "key", defaultKeyFile, "file to make; an existing one is never replaced")
	cmd.Flags().BoolVar(&file.DepositsOnly, "deposits-only", false, "make the seed of the deposit wallets only, because the treasury's key is remote")
	source.flags(cmd)
	return cmd
}

func signerServeCommand() *cobra.Command {
	var options signer.Options
	var source passphraseSource
	var users []string
	var confine string
	cmd := &cobra.Command{
		Use: "serve", Short: "Sign payouts over a unix socket", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(config.Default().Log)
			if err != nil {
				return err
			}
			options.Log = log
			if options.AllowUsers, err = userIDs(users); err != nil {
				return err
			}
			if err := confineSigner(confine, options, source.path(), log); err != nil {
				return err
			}
			if options.Passphrase, err = source.read(); err != nil {
				return err
			}
			return signer.Serve(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVar(&options.Socket, "socket", "/run/muster/signer.sock", "unix socket to serve on")
	cmd.Flags().StringVar(&options.KeyFile, "key", defaultKeyFile, "the signer's keys, made by musterd signer init")
	cmd.Flags().StringVar(&options.RemoteKeyFile, "remote-key", "", "file that says which Vault or AWS KMS holds the treasury's key")
	cmd.Flags().StringVar(&options.PolicyFile, "policy", defaultPolicyFile, "what may be signed")
	cmd.Flags().StringVar(&options.JournalDir, "journal", defaultJournalDir, "folder of the journal of what has been signed, and of the log")
	cmd.Flags().StringSliceVar(&users, "allow-user", nil, "user, by name or id, that may ask besides the signer's own; may be repeated")
	cmd.Flags().StringVar(&confine, "confine", "auto", "let the kernel confine the signer to its own files and no network: required, auto (where the kernel can) or off")
	source.flags(cmd)
	return cmd
}

// confineSigner executes the program again, confined; it returns in the program that goes on.
func confineSigner(mode string, options signer.Options, passphraseFile string, log *slog.Logger) error {
	var readable []string
	if passphraseFile != "" {
		readable = append(readable, passphraseFile)
	}
	switch mode {
	case "off":
		return nil
	case "required":
		return signer.Confine(options, readable...)
	case "auto":
		err := signer.Confine(options, readable...)
		if errors.Is(err, signer.ErrNotConfined) {
			log.Warn("the signer goes on with its user's rights", "reason", err)
			return nil
		}
		return err
	default:
		return fmt.Errorf("--confine is required, auto or off, not %q", mode)
	}
}

func userIDs(names []string) ([]int, error) {
	var ids []int
	for _, name := range names {
		id, err := strconv.Atoi(name)
		if err != nil {
			found, lookupErr := user.Lookup(name)
			if lookupErr != nil {
				return nil, fmt.Errorf("--allow-user: %w", lookupErr)
			}
			if id, err = strconv.Atoi(found.Uid); err != nil {
				return nil, fmt.Errorf("--allow-user: %s has the id %q: %w", name, found.Uid, err)
			}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func signerLogVerifyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that no line of the signer's log was changed, dropped or moved", Args: cobra.NoArgs,
		Long: "Check that no line of the signer's log was changed, dropped or moved, and print how many there are and the last one's hash. " +
			"Keep these two elsewhere: only they show lines that were cut off at the end.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := signer.VerifyLog(dir)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(report)
		},
	}
	cmd.Flags().StringVar(&dir, "journal", defaultJournalDir, "folder of the journal, where the log is")
	return cmd
}

func signerPolicyCheckCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "check", Short: "Say whether the signer would start with a policy file", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := signer.CheckPolicy(path); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "the policy is valid")
			return err
		},
	}
	cmd.Flags().StringVar(&path, "policy", defaultPolicyFile, "file to check")
	return cmd
}
