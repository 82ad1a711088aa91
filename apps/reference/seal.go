package main

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
)

var errSeal = errors.New("sealed value is not ours, or was tampered with")

// seal encrypts a value with AES-256-GCM. The purpose is bound to it: what was sealed for one place opens at no other.
func seal(key encryptedKey, purpose string, value any) ([]byte, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	box, err := boxOf(key)
	if err != nil {
		return nil, err
	}
	return box.Seal(nil, nil, plain, []byte(purpose)), nil // #nosec G407 -- this AEAD makes a random nonce itself and takes none
}

func unseal(key encryptedKey, purpose string, sealed []byte, into any) error {
	box, err := boxOf(key)
	if err != nil {
		return err
	}
	plain, err := box.Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return errSeal
	}
	return json.Unmarshal(plain, into)
}

func boxOf(key encryptedKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
