package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const (
	serverVersionBound = 2 * time.Second
	maxRawBody         = 16 << 20
)

type versionView struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Server  string `json:"server,omitempty"`
	API     string `json:"server_version,omitempty"`
	Network string `json:"network,omitempty"`
}

func (a *App) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: groupSetup, Short: "Show the versions of this program and of the server", Example: "muster version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			view := versionView{Version: a.Version, Go: runtime.Version()}
			if api, err := a.public(); err == nil {
				ctx, cancel := context.WithTimeout(cmd.Context(), serverVersionBound)
				defer cancel()
				view.Server = api.Base()
				var network apiv1.Network
				if err := api.Get(ctx, "/v1/network", nil, &network); err == nil {
					view.API, view.Network = network.Version, network.Name
				}
			}
			return a.printer().Print(view, []string{view.Version}, func(p *output.Page) {
				p.Facts(output.Fact{Label: "muster", Value: output.Textf("%s (%s)", view.Version, view.Go)})
				if view.Server != "" {
					p.Facts(output.Fact{Label: "server", Value: output.Textf("%s (%s, network %s)", first(view.API, "not reached"), view.Server, first(view.Network, "unknown"))})
				}
			})
		},
	}
}

// api is the raw way in, for what has no command.
func (a *App) api() *cobra.Command {
	var data, idempotencyKey string
	cmd := &cobra.Command{
		Use: "api [METHOD] PATH", GroupID: groupSetup, Short: "Make one API request and print the raw answer",
		Long: "Makes one request with the context's API key and prints the answer as it is. PATH may have a query. The body is --data, @FILE\n" +
			"or - for standard input; with a body the method is POST if none is given. The API is described at SERVER/docs.",
		Example: "muster api GET '/v1/clusters?state=live'",
		Args:    cobra.RangeArgs(1, 2), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, arguments []string) error {
			method := http.MethodGet
			if data != "" {
				method = http.MethodPost
			}
			if len(arguments) == 2 {
				method = strings.ToUpper(arguments[0])
			}
			body, err := a.readData(data)
			if err != nil {
				return err
			}
			return a.raw(cmd.Context(), method, arguments[len(arguments)-1], body, idempotencyKey)
		},
	}
	cmd.Flags().StringVarP(&data, "data", "d", "", "JSON body, @FILE or - for standard input")
	cmd.Flags().StringVar(&idempotencyKey, "idempotency-key", "", "the same key with the same request gives the same answer")
	return cmd
}

func (a *App) readData(data string) (string, error) {
	var source io.Reader
	switch {
	case data == "-":
		source = a.In
	case strings.HasPrefix(data, "@"):
		file, err := os.Open(data[1:])
		if err != nil {
			return "", fmt.Errorf("read the body: %w", err)
		}
		defer func() { _ = file.Close() }()
		source = file
	default:
		return data, nil
	}
	content, err := io.ReadAll(io.LimitReader(source, maxRawBody))
	if err != nil {
		return "", fmt.Errorf("read the body: %w", err)
	}
	return string(content), nil
}

func (a *App) raw(ctx context.Context, method, path, body, idempotencyKey string) error {
	api, err := a.anyClient()
	if err != nil {
		return err
	}
	parsed, err := url.Parse(path)
	if err != nil || parsed.Host != "" || !strings.HasPrefix(parsed.Path, "/") {
		return fail(exitUsage, "%q is not a path such as /v1/me", path)
	}
	request, err := api.Request(ctx, method, parsed.Path, parsed.Query(), nil)
	if err != nil {
		return err
	}
	if body != "" {
		request.Body, request.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		request.Header.Set("Content-Type", "application/json")
	}
	if idempotencyKey != "" {
		request.Header.Set("Idempotency-Key", idempotencyKey)
	}
	response, err := (&http.Client{Transport: a.transport()}).Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(a.Out, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		code := exitFailed
		if response.StatusCode == http.StatusUnauthorized {
			code = exitNotLoggedIn
		}
		return fail(code, "%s %s: %s", method, path, response.Status)
	}
	return nil
}
