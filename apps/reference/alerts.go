package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

type alerter struct {
	rt     *runtime
	db     store
	secret []byte
}

func setupAlerts(rt *runtime) error {
	cfg, err := load[alertConfig](rt.environ)
	if err != nil {
		return err
	}
	a := &alerter{rt: rt, secret: []byte(cfg.HashSecret)}
	a.db, err = setupWorker(rt, cfg.WorkerConfig, a.handle)
	return err
}

// alertJob is the payload of the alert queue.
type alertJob struct {
	AlertID   string `json:"alert_id"`
	Recipient string `json:"recipient"`
	Channel   string `json:"channel"` // email, sms or slack
	Message   string `json:"message"`
}

// handle delivers once per alert id. Delivery is the row: nothing leaves the machine. The recipient is kept only as an HMAC, which
// tells that two alerts went to the same person without telling who.
func (a *alerter) handle(ctx context.Context, j job) (string, error) {
	var alert alertJob
	err := json.Unmarshal(j.payload, &alert)
	switch {
	case err != nil:
		err = fmt.Errorf("payload is not an alert: %w", err)
	case !identifier.MatchString(alert.AlertID):
		err = errors.New("alert_id: 1 to 64 letters, digits, dots, dashes or underscores")
	case alert.Recipient == "" || alert.Message == "" || len(alert.Message) > 4000:
		err = errors.New("recipient, message: must not be empty, and a message has at most 4000 bytes")
	case alert.Channel != "email" && alert.Channel != "sms" && alert.Channel != "slack":
		err = errors.New("channel: must be email, sms or slack")
	case j.attempts > maxAttempts:
		err = fmt.Errorf("gave up after %d attempts", maxAttempts)
	}
	if err != nil {
		return "", permanent{err}
	}
	mac := hmac.New(sha256.New, a.secret)
	mac.Write([]byte(alert.Recipient))
	hash := hex.EncodeToString(mac.Sum(nil))
	first, err := a.db.addAlert(ctx, alertRecord{AlertID: alert.AlertID, Queue: j.queue, Channel: alert.Channel, RecipientHash: hash, Message: alert.Message, Worker: j.worker})
	if err != nil {
		return "", err
	}
	if !first {
		a.rt.log.InfoContext(ctx, "alert was delivered before, nothing to do", "alert_id", alert.AlertID)
		return "duplicate", nil
	}
	a.rt.log.InfoContext(ctx, "alert recorded as delivered; the reference app sends nothing anywhere", "alert_id", alert.AlertID, "channel", alert.Channel, "recipient_hmac", hash[:16])
	return "completed", nil
}
